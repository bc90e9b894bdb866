"""What the checker of an exercise says to an answer; the tests of the lessons import it."""

import inspect

from course_lib.lesson.checking import check
from course_lib.lesson.tasks import find


def verdict(task_id, function):
    """`function` judged under the signature that the exercise asks for."""
    task = find(task_id)
    signature = inspect.signature(task.reference)

    def answer(*args, **options):
        given = signature.bind(*args, **options)
        given.apply_defaults()
        return function(*given.arguments.values())

    answer.__signature__ = signature
    return check(task, answer)
