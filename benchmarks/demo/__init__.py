"""One trace of real questions, replayed bare and dispatched through LangChain and LlamaIndex: ``make demo``."""
