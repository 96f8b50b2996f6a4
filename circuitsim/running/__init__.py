"""Whatever is run many times: tasks, stores, executors, records, sealed files."""
