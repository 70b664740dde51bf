"""One small file a question: what is varied, with the command, hardware, minutes and expected figures."""
