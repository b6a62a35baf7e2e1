"""A query engine over the handbook, asked everything twice: what does the second wording cost?"""
