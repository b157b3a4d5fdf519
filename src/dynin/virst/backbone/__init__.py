"""Video-language models behind one protocol. Frames, sentences and [ST] embeddings enter; [ST] states leave."""
