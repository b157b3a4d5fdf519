"""Examples and settings enter; trained weights leave. The loop knows no task, the objective no optimizer."""
