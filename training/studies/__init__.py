"""Studies: each answers one question about runs, with a table, JSON and sometimes figures; `syncrec study NAME` runs it."""
