"""The embedded model's own codecs: pictures and sounds enter, codes leave; and back."""
