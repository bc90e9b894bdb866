"""The exercises: one module `lesson_NN` per lesson, each with a tuple `EXERCISES`; others hold what they share."""
