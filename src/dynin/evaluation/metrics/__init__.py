"""The judges: what was made enters, verdicts and error rates leave. They share no code with what makes."""
