"""From sums over users to a report. Numbers in, numbers out: nothing here knows Redis, HTTP or files."""
