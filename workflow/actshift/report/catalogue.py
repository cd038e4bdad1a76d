"""The tables that figures, answers and page know: study, folder and the columns they rely on."""

from dataclasses import dataclass

from actshift.claims.columns import CLAIM_COLUMNS, UNIT_COLUMNS

#: What a chat model made of study B's answers: a table of runs that name its endpoint.
JUDGED_TABLE = "judged"
#: Study name of tables that belong to no single study.
OF_THE_RUN = "run"


@dataclass(frozen=True, slots=True)
class Known:
    """One table.

    Attributes:
        study: whose section of the page shows it; `run` for the whole run's.
        folder: where it lies below `tables/`.
        columns: that the report reads; more are welcome and shown.
        file: its name there, without `.csv`: two folders may each have a `summary`.
    """

    study: str
    folder: str
    columns: tuple[str, ...]
    file: str


def _of(
    study: str, folder: str, columns: dict[str, str], files: dict[str, str] | None = None
) -> dict[str, Known]:
    """Tables of one study; a table is called as its file unless `files` says otherwise."""
    return {
        name: Known(study, folder, tuple(text.split()), (files or {}).get(name, name))
        for name, text in columns.items()
    }


_EFFECT = "n clusters refusal refusal_low refusal_high plain_refusal refusal_change"
_CELL = "pair condition length"
_RATE = "n clusters code code_low code_high"
_LANE = "pair receiver donor protocol layer control source coeff split"
_OUTCOME = (
    f"{_RATE} code_plain drop drop_low drop_high repaired repaired_low repaired_high "
    "repaired_plain gain gain_low gain_high"
)
_DRAWS = "draws_low draws_median draws_high drop_draws_high"
_PATCHED = "n clusters effect effect_low effect_high gap"

#: By a name that no other table has, in the order of the page.
TABLES: dict[str, Known] = {
    **_of(
        "rank_audit",
        "rank_audit",
        {
            "summary": "pair source matrix inputs pooling n d mean_rank_eps",
            "rank": "pair matrix inputs category layer n d rank_eps top_share",
            "cumulative_variance": "pair matrix inputs layer k share share_centered",
            "heldout_rank": "pair matrix inputs layer k share_heldout share_null",
            "inflation": "pair inputs layer rank_naive rank_template ratio",
            "cosine": "pair matrix inputs layer cos_refusal cos_own_mean",
            "cosine_by_category": "pair matrix inputs category layer cos_refusal",
            "concept_baseline": "pair role concept layer matched n rank_eps log_ratio_low",
            "bootstrap": "pair matrix inputs layer rank_eps",
            "eps_sensitivity": "pair matrix inputs scope eps rank_eps",
            "n_sweep": "pair matrix inputs layer n",
            "pooling": "pair matrix inputs layer pooling rank_eps",
        },
    ),
    **_of(
        "refusal_direction",
        "rank_audit",
        {
            "refusal_effect": "pair condition edit control draws n clusters refused plain_refused "
            "change low high draws_low draws_high on_topic",
            "refusal_direction": "pair layer position bypass induce kl chosen verdict",
        },
    ),
    **_of(
        "ablation",
        "rank_audit",
        {
            "ablation_sweep": f"pair protocol band frame edit k d {_EFFECT} complied "
            "random_refusal_low random_refusal_median random_refusal_high status",
            "ablation_by_category": "pair category frame k n clusters refusal complied",
            "direction_ablation": f"pair band frame edit kind directions k {_EFFECT} "
            "self_cosine_min",
            "ordering": "pair band frame edit test earlier later difference p_holm exceeds "
            "kendall_tau",
            "substitution": f"pair lane band frame k d {_EFFECT} status",
            "old_or_new": f"pair direction band edit {_EFFECT} status",
            "side_effects": "pair experiment frame edit band k n clusters over_refusal on_topic "
            "kl_first loss_change",
            "judge": "pair classifier condition keyword judge n",
            "judge_agreement": "pair",
            "ablation_published": "family matrix band kind k directions refusal low high "
            "random_refusal",
        },
    ),
    **_of(
        "spectral_gap",
        "rank_audit",
        {
            "spectral_gap": "pair reference layer n clusters rank_S kappa kappa_over_bound status",
            "spectral_gap_summary": "source pair reference layers informative above_8 kappa_median",
        },
    ),
    **_of(
        "calibration",
        "calibration",
        {
            "calibration_means": "",
            "calibration_ablation": "variant lambda seed projection ablated_rank compliance bias "
            "compliance_bias_only compliance_published answered_0_control mean_logit_minus_bias",
            "calibration_rank": "variant lambda seed inputs layer rho_eps",
            "calibration_spectral_gap": "honest unsafe seed rank_S kappa kappa_bound",
            "calibration_training": "network seed",
        },
    ),
    **_of(
        "localization",
        "localization",
        {
            "preference_margins": "pair condition n clusters margin_base margin_tuned gap gap_low "
            "gap_high",
            "localization_summary": "pair condition length statistic operation direction "
            "positions layer n clusters value value_low value_high gap_low status why",
            "patching": f"{_CELL} direction positions layer {_PATCHED}",
            "controls": f"{_CELL} direction control positions layer draws {_PATCHED} draws_low "
            "draws_median draws_high of_patch of_patch_low of_patch_high",
            "positions": f"{_CELL} direction positions n clusters peak_layer peak peak_low "
            "peak_high last_layer last_layer_low last_layer_high edge_over_peak "
            "edge_over_peak_low edge_over_peak_high interior peak_share gap status why",
            "interpolation": f"{_CELL} direction positions layer alpha {_PATCHED} step step_low",
            "sources": f"{_CELL} direction source positions layer {_PATCHED}",
            "low_rank": f"{_CELL} direction positions basis keep_rest rank layer n clusters "
            "of_full of_full_low of_full_high noise_of_full share_of_variance",
            "block_swap": f"{_CELL} operation part layer n clusters share share_low share_high",
            "distances": f"{_CELL} position layer n clusters norm norm_low norm_high",
            "probe": f"{_CELL} position target layer n clusters r2_out r2_out_low r2_out_high",
            "lasso": f"{_CELL} position target model folds layer n clusters coefficient support "
            "r2_out r2_out_low r2_out_high",
            "lasso_stability": f"{_CELL} position target layer n clusters frequency "
            "null_frequency null_95 peak_layer stable_layers distance_to_peak",
            "localization_published": "table subject quantity value",
        },
        files={"localization_summary": "summary"},
    ),
    **_of(
        "misalignment",
        "misalignment",
        {
            "dose": "pair adapter first_loss last_loss delta_norm shift_norm kl_code kl_other",
            "ladder": "pair rung multiple lr spillover spillover_gate insecure_code "
            "insecure_code_gate room taken",
            "spillover": f"pair adapter split condition kind {_RATE} insecure refused",
            "separation": "pair adapter projected_on layer split n clusters balanced_accuracy "
            "accuracy_low accuracy_high cohen_d",
            "detection": "pair positive negative layer split n clusters auroc auroc_low auroc_high",
            "direction_cosines": "pair layer a b cosine",
            "steering": f"{_LANE} norm_rule scale {_OUTCOME} kl_first {_DRAWS} status",
            "content": "pair receiver source protocol coeff split n clusters gain gain_low "
            "gain_high gain_insecure difference difference_low difference_high dose_ratio",
            "misalignment_side_effects": f"{_LANE} norm_rule asked n clusters code code_plain "
            "code_change_low code_change_high on_topic on_topic_plain refused refused_plain",
            "ridge_maps": "donor receiver layer fit_on n clusters r2 r2_low r2_high "
            "r2_shuffled_high cosine cosine_null_high",
            "transfer": f"{_LANE} norm_rule fit_on {_OUTCOME} {_DRAWS} status",
            "specificity": "donor receiver protocol fit_on coeff n clusters gain gain_low "
            "gain_high null null_high draws margin margin_low margin_high p p_holm status why",
            "topology": "donor receiver fit_on share share_low share_high",
            JUDGED_TABLE: "pair adapter asked n clusters scored coherent misaligned misaligned_low "
            "misaligned_high code refusal",
            "misalignment_published": "table subject quantity value",
        },
        files={"misalignment_side_effects": "side_effects"},
    ),
    **_of(
        OF_THE_RUN,
        "",
        {
            "zoo_behaviour": "model variant split condition metric rate low high",
            "zoo_attempts": "model attempt schedule seed steps nearest_gate rate room missed taken",
            "claims": " ".join(CLAIM_COLUMNS),
            "claims_by_pair": " ".join(UNIT_COLUMNS),
        },
    ),
}


def study_of(folder: str, file: str) -> str | None:
    """Whose table `tables/<folder>/<file>.csv` is; None for one that the report does not know."""
    for known in TABLES.values():
        if (known.folder, known.file) == (folder, file):
            return known.study
    return None
