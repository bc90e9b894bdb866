"""The twenty-one lessons in order: title and promise. A lesson that exists speaks for itself, through its card.

And for each of them one measured number, for README.md's table: a text, and where `sync.py` reads the numbers in it.
"""

PLAN = (
    ("Start here", "Look around, check your machine, draw a first picture"),
    ("Bayes and Markov chains", "Turn evidence into beliefs, and follow a chain to where it forgets its start"),
    ("Gaussians and moments", "Add, condition and multiply bell curves, in one dimension and in many"),
    ("KL divergence", "Measure how far one distribution is from another, in nats"),
    ("Coordinate descent", "Improve one block of unknowns at a time, and see when that is enough"),
    ("Forward noising", "Dissolve images into noise step by step, and in one shot"),
    ("The bound and the posterior", "Derive what a diffusion model is trained on"),
    ("U-Net (2015)", "Build the network that segments, layer by layer"),
    ("The DDPM U-Net", "Turn the U-Net into one that predicts noise"),
    ("Train and sample DDPM", "Train a diffusion model and draw from it"),
    ("DDIM and fast samplers", "Draw in tens of steps instead of a thousand"),
    ("GAN", "Let two networks play against each other"),
    ("VAE", "Learn a code for images, and draw from it"),
    ("CLIP", "Put images and their captions into one space"),
    ("Measuring images", "FID, CLIP score, and how both mislead"),
    ("Guidance and cross-attention", "Make the model draw what the text asks for"),
    ("The unCLIP prior", "Turn a caption into an image embedding"),
    ("The unCLIP decoder", "Turn an image embedding into an image"),
    ("Latent diffusion", "Run diffusion in the code of an autoencoder, as Stable Diffusion does"),
    ("ControlNet", "Steer a finished model with edges, depth or poses"),
    ("Where next", "What to read, build and question now"),
)

# {number of the lesson: (text, source, …)}. The sources fill the text's places {0}, {1}, … in their order:
#   (checkpoint, metric)  an entry of the metrics on the checkpoint's card, for {0[value]:.0%}, {0[interval][1]:.0%}, …
#   a regular expression  its groups, as the lesson's stored outputs (or, if not there, its prose) have them
# A lesson whose sources are not all there shows no number. Digits in the text itself must be in a source, too.
MEASURED: dict[int, tuple] = {
    0: (
        "An oracle finds {0} of {1} scenes right with their own sentences, {2} of {3} with a neighbour's",
        r"own sentences:\s+(\d+) of (\d+)\nright with the neighbour's:\s+(\d+) of (\d+)",
    ),
    1: (
        "Of {2} flagged pictures {1} are machine-made, not the claimed {0}; Bayes' rule says {3}",
        r"claimed: (\d+%) of .*\ncounted: (\S+%) of (\S+) deleted pictures; Bayes' rule says (\S+%)",
    ),
    2: (
        "Mean squared error of a noisy photograph {0}, cleaned by 7 × 7 neighbours {1}",
        r"noisy +mean squared error (\S+)",
        r"7 x 7 +mean squared error (\S+)",
    ),
    3: (
        "KL to pure noise: {1} nats with {0} of a photograph left, {3} nats with {2}",
        r"per pixel, nats\n +(0\.99)0* +(\S+) ",
        r" (0\.00004) +(\S+) ",
    ),
    4: (
        "{0} of {1} pixels of a portrait given: error on the others {4} with {3} cosine patterns, {2} with none",
        r"(\d+) of (\d+) pixels are given",
        r" 0 coefficients, error on the missing pixels (\S+)",
        r"penalty 0\.10: (\d+) coefficients, error on the missing pixels (\S+)",
    ),
    5: (
        "ᾱ_T = {1}: what is left of a picture's variance after {0} steps",
        r"Schedule\.linear\(T=(\d+)\): alpha_bars \S+ … (\S+)",
    ),
    6: (
        "ln p = {1} nats by summing {0} paths; the bound says {2}",
        r"by summing (\S+) paths: ",
        r"variances times 1\.0: ln p = (\S+) +ELBO = (\S+)",
    ),
    7: (
        "{3} parameters: {0} × {0} pixels in, scores for {2} × {2} out",
        r"down 0 +1 channels, (\d+) ×",
        r"scores  \((\d+), 2, (\d+), \d+\)",
        r"23 convolutions, (\S+) parameters",
    ),
    8: (
        "Loss {1} with skips, {2} without (mean ± standard deviation, seeds {0})",
        r"noise drawn once; seeds (\[.+\])",
        r"\nadd +(\S+ ± \S+)",
        r"\nno_skips +(\S+ ± \S+)",
    ),
    9: (
        "Fréchet distance of garments drawn in 50 steps: {0[value]:.2f} (n = 1,000; floor {0[floor]:.2f})",
        ("ddpm_fashion", "Fréchet distance, DDIM-50, n=1000"),
    ),
    10: (
        "Fréchet distance with 20 calls: DPM-Solver++ {0[value]:.2f}, DDIM {1[value]:.2f}, DDPM {2[value]:.2f} "
        "(n = 1,000; floor {0[floor]:.2f})",
        ("sampling_steps", "Fréchet distance, DPM-Solver++-20, n=1000"),
        ("sampling_steps", "Fréchet distance, DDIM-20, n=1000"),
        ("sampling_steps", "Fréchet distance, DDPM-20, n=1000"),
    ),
    11: (
        "Modes covered, of 8, seed by seed: plain GAN {0}, with R1 and EMA {1}",
        r"near a mode\nplain GAN +(\[.+\]) ",
        r"\nGAN with R1 and EMA +(\[.+\]) ",
    ),
    12: (
        "Fréchet distance {0[value]:.1f} with codes from the prior, {1[value]:.1f} from a density fitted to the codes "
        "(n = 2,000; floor {0[floor]:.2f})",
        ("vae_fashion", "Fréchet distance, z from the prior, n=2000"),
        ("vae_fashion", "Fréchet distance, z from the fitted, n=2000"),
    ),
    13: (
        "{0[value]:.1%} of 1,320 pictures of pairs never trained on find their caption among 64 "
        "(chance {0[floor]:.1%})",
        ("clip_shapes", "caption among 64, two objects, pairs never trained on (n = 1320)"),
    ),
    14: (
        "Fréchet distance: GAN {0[value]:.2f}, diffusion {1[value]:.2f}, VAE {2[value]:.1f} "
        "(n = 2,000; floor {0[floor]:.2f}), noise forged to please it {3[value]:.2f} (n = 400; floor {3[floor]:.2f})",
        ("measured_samples", "Fréchet distance, GAN, n=2000"),
        ("measured_samples", "Fréchet distance, diffusion, 50 steps, n=2000"),
        ("measured_samples", "Fréchet distance, VAE, prior, n=2000"),
        ("measured_samples", "Fréchet distance, forged, n=400"),
    ),
    15: (
        "{0[value]:.0%} of 500 unseen sentences drawn with every word right "
        "({0[interval][0]:.0%} to {0[interval][1]:.0%}; chance {0[floor]:.0%})",
        ("text_shapes", "all words right, unseen prompts, scale 3 (n = 500)"),
    ),
    16: (
        "Variance of the embeddings drawn for a caption, over the true one: {0[value]:.2f} on average of 12 captions "
        "(smallest {1[value]:.2f}, largest {2[value]:.2f}); guessed in one step: {3[value]}",
        ("prior_shapes", "variance within a caption over the real one, drawn in 25 steps, mean of 12"),
        ("prior_shapes", "the same, smallest, drawn in 25 steps"),
        ("prior_shapes", "the same, largest, drawn in 25 steps"),
        ("prior_shapes", "variance within a caption over the real one, guessed in one step, mean of 12"),
    ),
    17: (
        "Every word right in {0[value]:.0%} of 500 unseen sentences about one object ({0[interval][0]:.1%} to "
        "{0[interval][1]:.0%}; chance {0[floor]:.1%}), in {1[value]:.1%} of 500 about two "
        "({1[interval][0]:.1%} to {1[interval][1]:.1%}; chance {1[floor]:.1%})",
        ("decoder_shapes", "all words right, one object, prior's embedding (n = 500)"),
        ("decoder_shapes", "all words right, two objects, prior's embedding (n = 500)"),
    ),
    18: (
        "{0[value]:.0%} of 500 unseen sentences drawn with every word right on latents "
        "({0[interval][0]:.0%} to {0[interval][1]:.0%}; chance {0[floor]:.0%}), {1[value]:.0%} on pixels",
        ("latent_shapes", "all words right, unseen prompts, scale 3 (n = 500)"),
        ("text_shapes", "all words right, unseen prompts, scale 3 (n = 500)"),
    ),
    19: (
        "Edges of 500 unseen scenes: F1 {0[value]:.2f} with control, {1[value]:.2f} without (chance {0[floor]:.2f})",
        ("controlnet_edges", "edge F1, right prompt (n = 500)"),
        ("controlnet_edges", "edge F1, right prompt, no control (n = 500)"),
    ),
    20: ("{0} parameters: Stable Diffusion's U-Net, in the course's own code", r"(859,520,964)"),
}
