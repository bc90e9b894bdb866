"""Measuring pictures: Fréchet distance and floor, a fixed classifier, nearest pictures, CLIP scores, class overlap."""

from course_lib.evaluation.clip_scores import above_shuffled, clip_score, retrieval_at_k, zero_shot
from course_lib.evaluation.frechet import distance_to_real, feature_distance, floor, frechet_distance, moments
from course_lib.evaluation.neighbours import Neighbours, nearest
from course_lib.evaluation.segmentation import class_iou
from course_lib.evaluation.yardstick import Report, Seen, fashion_classifier, look, report

__all__ = [
    "Neighbours",
    "Report",
    "Seen",
    "above_shuffled",
    "class_iou",
    "clip_score",
    "distance_to_real",
    "fashion_classifier",
    "feature_distance",
    "floor",
    "frechet_distance",
    "look",
    "moments",
    "nearest",
    "report",
    "retrieval_at_k",
    "zero_shot",
]
