"""The published speech tokenizer, EMOVA: sounds at 16 kHz enter, codes of what is said leave; and sounds again."""
