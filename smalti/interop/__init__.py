"""Files of other projects: opened as data, never as code; their names, ours."""
