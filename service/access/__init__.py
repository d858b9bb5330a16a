"""Who may ask: API keys with roles, and how often each may."""
