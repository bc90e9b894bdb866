"""Measuring pictures: distances, precision and recall, CLIP scores, class overlap, and one fixed classifier."""

from course_lib.evaluation.clip_scores import above_shuffled, clip_score, retrieval_at_k, zero_shot
from course_lib.evaluation.frechet import (
    distance_to_real,
    expected_floor,
    feature_distance,
    floor,
    frechet_distance,
    mean_over_pairs,
    moments,
)
from course_lib.evaluation.kernel_distance import KernelDistance, cubic_kernel, kernel_distance, mmd_squared
from course_lib.evaluation.neighbours import Neighbours, nearest
from course_lib.evaluation.precision_recall import Overlap, inside_balls, neighbour_radius, precision, precision_recall
from course_lib.evaluation.segmentation import class_iou
from course_lib.evaluation.yardstick import Report, Seen, fashion_classifier, look, report

__all__ = [
    "KernelDistance",
    "Neighbours",
    "Overlap",
    "Report",
    "Seen",
    "above_shuffled",
    "class_iou",
    "clip_score",
    "cubic_kernel",
    "distance_to_real",
    "expected_floor",
    "fashion_classifier",
    "feature_distance",
    "floor",
    "frechet_distance",
    "inside_balls",
    "kernel_distance",
    "look",
    "mean_over_pairs",
    "mmd_squared",
    "moments",
    "nearest",
    "neighbour_radius",
    "precision",
    "precision_recall",
    "report",
    "retrieval_at_k",
    "zero_shot",
]
