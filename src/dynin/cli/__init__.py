"""Words typed by a person enter; files, lines and exit statuses leave. One file per command; nothing else prints."""
