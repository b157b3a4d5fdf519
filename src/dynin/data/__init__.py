"""Seeds and files enter; examples, and training rows made of them, leave."""
