"""The figures of the rank audit: what each is drawn from, its title and its caption."""

from actshift.report.spec import FigureSpec
from actshift.studies.rank_audit.comparison_figures import published_summary, zoo_behaviour
from actshift.studies.rank_audit.direction_figures import cosine_by_layer, heldout_rank
from actshift.studies.rank_audit.rank_figures import (
    cumulative_variance,
    inflation_by_layer,
    rank_by_layer,
    shift_by_layer,
)

AUDIT: dict[str, FigureSpec] = {
    "rank_by_layer": FigureSpec(
        "rank_audit",
        rank_by_layer,
        ("rank",),
        "How many directions does the shift need?",
        "Smallest number of directions that holds 95 % of the shift's energy, by layer, for the "
        "four ways of taking the difference. Filled: as the matrix is. Open: after subtracting "
        "the mean over prompts. aligned compares two templates inside the tuned model; the base "
        "model is not in it. An uncentred rank of 1 means one shared offset, not one concept.",
    ),
    "cumulative_variance": FigureSpec(
        "rank_audit",
        cumulative_variance,
        ("cumulative_variance",),
        "How is the energy spread over directions?",
        "Share of the shift's energy in its first k directions, by layer (harmful prompts). The "
        "white line is the first k that holds 95 %. The last column takes the mean over prompts "
        "away first: what is left is how prompts differ in their shift.",
    ),
    "shift_by_layer": FigureSpec(
        "rank_audit",
        shift_by_layer,
        ("rank",),
        "Which layers carry the shift?",
        "Size of the shift relative to the tuned model's activations, by layer. Blocks add to "
        "what earlier blocks wrote, so a curve is cumulative and no layer's own share. A rank "
        "at a layer that hardly moves weighs as much as any other in a plain mean.",
    ),
    "inflation_by_layer": FigureSpec(
        "rank_audit",
        inflation_by_layer,
        ("inflation",),
        "How much of the naive rank is template?",
        "Rank of the naive matrix over the rank of the template matrix at equal n, log scale. "
        "The bar is the stability range over half-samples of clusters, not a confidence "
        "interval. Open markers: a rank below 3, where the ratio cannot be told from 1/1.",
    ),
    "cosine_by_layer": FigureSpec(
        "rank_audit",
        cosine_by_layer,
        ("cosine",),
        "Where does the first direction point?",
        "By algebra the mean of did is the refusal direction minus the base model's own "
        "harmful-harmless difference, so a high cosine in the did column is evidence only where "
        "it leaves the prediction from the means (crosses). Beside it: the first direction after "
        "centring, and the same prediction for question against statement as a control contrast.",
    ),
    "heldout_rank": FigureSpec(
        "rank_audit",
        heldout_rank,
        ("heldout_rank",),
        "How many directions carry over to new topics?",
        "Share of the shift energy of held-out clusters that lies in the first k directions "
        "fitted on the others (template matrix), with a null whose coordinates are shuffled. "
        "The knee (dashed) ends the leading run of k whose gain beats the null's.",
    ),
    "published_summary": FigureSpec(
        "rank_audit",
        published_summary,
        ("summary",),
        "Beside the published numbers",
        "Means over layers. The shaded rows are published values of other, far larger models "
        "(arXiv 2605.24583: d 3584-4096, n 200 with near-duplicates): a yardstick, not a target. "
        "Compare rank / min(d, n) rather than rank: width and number of prompts bound the rank.",
    ),
    "zoo_behaviour": FigureSpec(
        "rank_audit",
        zoo_behaviour,
        ("zoo_behaviour",),
        "Do the zoo's models behave as named?",
        "Rates on held-out prompts with 95 % bounds by cluster (noun), beside the gates, which "
        "were decided on other prompts. A gate looks at the rate; the bound says what a new noun "
        "could still do.",
    ),
}
