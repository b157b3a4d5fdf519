"""VIRST: a sentence and a video or picture enter; a mask of what the sentence means leaves, for every frame."""
