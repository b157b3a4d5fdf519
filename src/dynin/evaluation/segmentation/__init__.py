"""How good masks are: enters what a sentence means and what was predicted, leave scores with intervals and tables."""
