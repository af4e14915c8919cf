"""A whole run: settings to stages to tables, from the command line or a notebook."""
