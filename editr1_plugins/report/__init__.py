"""Pages for people, made from records: `page.write_report` turns a directory of records into one HTML file."""
