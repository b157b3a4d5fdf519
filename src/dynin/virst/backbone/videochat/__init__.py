"""VideoChat-Flash, the published backbone: clips and sentences enter, [ST] states of a causal language model leave.

config      sizes, by default the published 7B model's
umt         frames of clips to patch features: a transformer over space and time
merging     many patch features to few, by their likeness
connector   patch features to the language model's width
language    the causal language model, from the package transformers
prompt      the chat around a sentence, with the places of the video and of the [ST] tokens
model       all of it, behind the protocol
convert     published names to ours and back, adapters folded in
load        a published folder to a model
"""
