"""Arrays of a modality enter, codes from 0 to `codebook_size - 1` leave; and back."""
