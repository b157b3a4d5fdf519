"""The published image tokenizer, MAGVIT-v2: pictures enter, codes of 13 signs leave; and back."""
