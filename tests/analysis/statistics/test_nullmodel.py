"""The null model: logit-normals, variance split, labels, redrawn β networks, verdicts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from scipy.special import expit

from acon_analysis.columns import NULL_COLUMNS, dtypes, names
from acon_analysis.errors import AconError, UsageError
from acon_analysis.statistics import batchnorm_null, beta_variance, gaussian, redrawn_null, verdicts
from acon_analysis.statistics.beta_variance import FloatArray


def pooled_inputs(rng: np.random.Generator, count: int, channels: int, rank: int = 8) -> FloatArray:
    factors = rng.standard_normal((count, rank)) @ rng.standard_normal((rank, channels))
    return np.asarray(np.maximum(factors / np.sqrt(rank) + 0.3, 0))


def network(
    channels: int, hidden: int = 4, gamma: float = 1.0, bias: float = 0.0
) -> redrawn_null.BetaNetwork:
    return redrawn_null.BetaNetwork(hidden, np.full(channels, gamma), np.full(channels, bias))


@pytest.mark.parametrize(("bias", "weight"), [(0, 1), (1.5, 0.3), (-2, -1.7), (0.2, 4)])
def test_density_distribution_and_moments_agree(bias: float, weight: float) -> None:
    def density(v: float) -> float:
        return float(batchnorm_null.logit_normal_pdf(v, bias, weight))

    points = [float(expit(bias + weight * z)) for z in (-3, -1, 0, 1, 3)]
    total, _ = integrate.quad(density, 0, 1, points=points, limit=200)
    first, _ = integrate.quad(lambda v: v * density(v), 0, 1, points=points, limit=200)
    half, _ = integrate.quad(density, 0, points[2], points=points[:2], limit=200)
    assert total == pytest.approx(1, abs=1e-7)
    assert first == pytest.approx(float(gaussian.logit_normal_moments(bias, weight)[0]), abs=1e-7)
    assert half == pytest.approx(0.5, abs=1e-7)
    assert float(batchnorm_null.logit_normal_cdf(points[2], bias, weight)) == pytest.approx(0.5)


def test_logit_normal_edges() -> None:
    np.testing.assert_array_equal(batchnorm_null.logit_normal_cdf([-1, 0, 1, 2]), [0, 0, 1, 1])
    np.testing.assert_array_equal(
        batchnorm_null.logit_normal_cdf([0.49, 0.5, 0.6], 0, 0), [0, 1, 1]
    )
    np.testing.assert_array_equal(batchnorm_null.logit_normal_pdf([-1, 0, 1, 2]), 0)
    assert np.isnan(batchnorm_null.logit_normal_pdf(0.5, 0, 0))
    for function in (batchnorm_null.logit_normal_cdf, batchnorm_null.logit_normal_pdf):
        assert np.isnan(function([np.nan, 0.5], [0, np.nan])).all()


def test_ks_distance_is_scipys() -> None:
    rng = np.random.default_rng(1)
    bias, weight = np.array([0.0, 1, -2]), np.array([1, -0.5, 2])
    beta = expit(bias + np.abs(weight) * rng.standard_normal((300, 3)) * [1, 1.3, 0.8])
    beta[:5, 1] = beta[5, 1]
    distance, error = batchnorm_null.ks_distance(beta, bias, weight)
    for c in range(3):
        uniform = batchnorm_null.logit_normal_cdf(beta[:, c], bias[c], weight[c])
        expected = stats.kstest(uniform, "uniform").statistic
        assert distance[c] == pytest.approx(float(expected), abs=1e-12)
    assert np.all((error > 0) & (error <= 0.5 / np.sqrt(300)))
    at = stats.kstwo.mean(300)
    assert float(batchnorm_null.expected_distance(300)) == pytest.approx(at, rel=0.005)


def test_ks_holds_its_level() -> None:
    """1,500 channels of the null itself: 5 % below 0.05, no excess on average."""
    rng = np.random.default_rng(2)
    bias, weight = rng.normal(size=1500), rng.uniform(0.2, 2, 1500)
    beta = expit(bias + weight * rng.standard_normal((80, 1500))).astype(np.float32)
    table = batchnorm_null.null_table(beta, bias, weight)
    assert 0.03 < (table["p_value"] < 0.05).mean() < 0.07
    assert abs(table["ks_excess"].mean()) < 0.003
    assert table["std_ratio"].mean() == pytest.approx(1, abs=0.02)
    # The sampling error of a distance that is really there.
    shifted = expit(bias + 0.8 * weight + weight * rng.standard_normal((80, 1500)))
    far = batchnorm_null.null_table(shifted, bias, weight)
    assert (far["p_value"] < 0.05).mean() > 0.99
    assert far["ks"].std() == pytest.approx(far["ks_error"].mean(), rel=0.25)


def test_null_table_of_odd_channels() -> None:
    rng = np.random.default_rng(3)
    beta = expit(rng.standard_normal((50, 4)))
    beta[:, 1] = expit(0.3)
    beta[:, 2] = 0.5
    bias, weight = np.array([0, 0.3, np.nan, 0.3]), np.array([1, 0, np.nan, 0.0])
    table = batchnorm_null.null_table(beta.astype(np.float32), bias, weight)
    assert list(table.columns) == names(NULL_COLUMNS)
    assert [str(t) for t in table.dtypes] == list(dtypes(NULL_COLUMNS).values())
    assert table["ks"][1] == 0
    assert table["ks"][3] == pytest.approx(
        max((beta[:, 3] > expit(0.3)).mean(), (beta[:, 3] < expit(0.3)).mean())
    )
    assert table["null_std"].tolist()[1] == 0
    assert table.loc[2, ["null_mean", "null_std", "ks", "p_value", "ks_excess"]].isna().all()
    assert table.loc[[1, 3], ["std_ratio", "p_value"]].isna().all().all()
    one = batchnorm_null.null_table(beta[:1], bias, weight)
    assert one["std"].tolist() == [0] * 4
    with pytest.raises(AconError, match=r"β has 4 channels, bias has shape \(3,\)"):
        batchnorm_null.null_table(beta, bias[:3], weight)
    with pytest.raises(AconError, match=r"matrix \(samples, channels\), given shape \(50,\)"):
        batchnorm_null.null_table(beta[:, 0], bias, weight)
    with pytest.raises(AconError, match="β holds 1 NaN or infinite of 200 values"):
        batchnorm_null.null_table(
            np.where(np.arange(200).reshape(50, 4) == 7, np.nan, beta), bias, weight
        )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 12))
def test_variance_split_is_exact(seed: int, count: int, channels: int) -> None:
    beta = np.random.default_rng(seed).random((count, channels))
    split = beta_variance.variance_split(beta)
    total = ((beta - beta.mean()) ** 2).sum()
    assert split.ss_total == pytest.approx(total, rel=1e-10, abs=1e-13)
    sample = channels * ((beta.mean(1) - beta.mean()) ** 2).sum()
    channel = count * ((beta.mean(0) - beta.mean()) ** 2).sum()
    assert split.ss_sample == pytest.approx(sample, rel=1e-9, abs=1e-13)
    assert split.ss_channel == pytest.approx(channel, rel=1e-9, abs=1e-13)
    if total > 1e-12:
        assert split.sample_share + split.channel_share + split.rest_share == pytest.approx(1)


def test_variance_split_of_known_cases() -> None:
    rng = np.random.default_rng(4)
    independent = beta_variance.variance_split(rng.random((4000, 50)))
    assert independent.ratio == pytest.approx(1, abs=0.07)
    assert independent.sample_std == pytest.approx(independent.expected_sample_std, rel=0.04)
    together = beta_variance.variance_split(np.repeat(rng.random((40, 1)), 6, axis=1))
    assert together.ratio == pytest.approx(6)
    assert together.sample_share == pytest.approx(1)
    static = beta_variance.variance_split(np.tile([0.1, 0.7, 0.3], (9, 1)))
    assert static.channel_share == pytest.approx(1)
    assert np.isnan(static.ratio)
    constant = beta_variance.variance_split(np.full((9, 3), 0.1))
    assert constant.ss_total == 0
    assert np.isnan(constant.sample_share)
    assert np.isnan(beta_variance.variance_split(rng.random((1, 5))).ratio)
    assert beta_variance.variance_split(rng.random((100, 3)).astype(np.float32)).samples == 100


@pytest.mark.parametrize("rank", [32, 4, 1])
def test_low_rank_spreads_the_sample_effect(rank: int) -> None:
    """Logits of rank r: the ratio is about χ²(r)/r."""
    rng = np.random.default_rng(5)
    ratios = []
    for _ in range(200):
        logits = rng.standard_normal((200, rank)) @ rng.standard_normal((rank, 128))
        ratios.append(beta_variance.variance_split(expit(logits / logits.std(0))).ratio)
    found = np.percentile(ratios, [5, 95])
    assert found[0] == pytest.approx(stats.chi2.ppf(0.05, rank) / rank, abs=0.12)
    assert found[1] == pytest.approx(stats.chi2.ppf(0.95, rank) / rank, rel=0.2)


def test_label_effect_finds_what_is_there() -> None:
    rng = np.random.default_rng(6)
    labels = np.repeat(["cat", "dog", "owl"], 40)
    values = rng.standard_normal(120) + np.repeat([0, 1, 2], 40)
    effect = beta_variance.label_effect(values, labels, seed=0, permutations=199)
    groups = [values[labels == name] for name in ("cat", "dog", "owl")]
    between = sum(40 * (g.mean() - values.mean()) ** 2 for g in groups)
    assert effect.eta2 == pytest.approx(between / ((values - values.mean()) ** 2).sum())
    assert effect.p_value == pytest.approx(1 / 200)
    assert effect.expected == pytest.approx(2 / 119)
    assert effect == beta_variance.label_effect(values, labels, seed=0, permutations=199)
    missing = labels.astype(object)
    missing[:5] = [None, np.nan, "", None, None]
    partly = beta_variance.label_effect(values, missing, seed=0, permutations=9)
    assert (partly.unlabelled, partly.samples, partly.classes) == (5, 115, 3)


def test_label_effect_holds_its_level() -> None:
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 4, 50)
    results = [
        beta_variance.label_effect(rng.exponential(size=50), labels, seed=rng, permutations=19)
        for _ in range(250)
    ]
    level = np.mean([r.p_value <= 0.05 for r in results])
    assert 0.025 <= level <= 0.08
    assert np.mean([r.eta2 for r in results]) == pytest.approx(results[0].expected, rel=0.1)


def test_label_effect_of_many_samples_is_the_limit_of_permutations() -> None:
    rng = np.random.default_rng(16)
    labels = rng.integers(0, 5, 6_000)
    values = rng.exponential(size=6_000) + 0.012 * labels
    effect = beta_variance.label_effect(values, labels, seed=0)
    assert effect.permutations == 0
    onehot = np.eye(5)[labels]
    centred, sizes = values - values.mean(), onehot.sum(0)
    permuted = np.stack([rng.permutation(centred) for _ in range(2_000)]) @ onehot
    between = (permuted**2 / sizes).sum(1)
    observed = ((centred @ onehot) ** 2 / sizes).sum()
    share = (between >= observed).mean()
    assert 0.05 < share < 0.6
    assert effect.p_value == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 2_000))


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0.1, 0.2, 0.3], ["a"] * 3),
        ([0.1, 0.2], ["a", "b"]),
        ([0.1] * 9, list("abcabcabc")),
        ([], []),
    ],
)
def test_label_effect_without_an_answer(values: list[float], labels: list[str]) -> None:
    effect = beta_variance.label_effect(values, labels, seed=0)
    assert np.isnan([effect.eta2, effect.p_value, effect.expected]).all()


def test_label_effect_errors() -> None:
    with pytest.raises(AconError, match=r"values have shape \(3,\), labels \(2,\)"):
        beta_variance.label_effect([1, 2, 3], ["a", "b"], seed=0)
    with pytest.raises(AconError, match="NaN or infinity"):
        beta_variance.label_effect([1, np.nan], ["a", "b"], seed=0)


def test_redrawn_logits_have_the_kept_mean_and_spread() -> None:
    rng = np.random.default_rng(8)
    pooled = pooled_inputs(rng, 500, 24) + 100
    bias, weight = rng.normal(size=24), rng.normal(size=24)
    for inner, relu, init in [(True, False, "uniform"), (False, True, "normal")]:
        net = redrawn_null.BetaNetwork(6, weight, bias, inner_norm=inner, relu=relu, init=init)  # type: ignore[arg-type]
        beta = redrawn_null.redraw_beta(pooled, net, 3)
        logits = np.log(beta.astype(float)) - np.log1p(-beta.astype(float))
        np.testing.assert_allclose(logits.mean(0), bias, atol=2e-4)
        np.testing.assert_allclose(logits.std(0), np.abs(weight), rtol=2e-3, atol=1e-4)
        np.testing.assert_array_equal(beta, redrawn_null.redraw_beta(pooled, net, 3))
        assert not np.array_equal(beta, redrawn_null.redraw_beta(pooled, net, 4))
    np.testing.assert_allclose(
        redrawn_null.redraw_beta(pooled[:1], redrawn_null.BetaNetwork(6, weight, bias), 0)[0],
        expit(bias),
        rtol=1e-5,
    )


def test_redraw_without_batch_norm_keeps_the_scale_of_the_initialisation() -> None:
    pooled = pooled_inputs(np.random.default_rng(9), 300, 32)
    net = redrawn_null.BetaNetwork(8, inner_norm=False)
    assert not net.normalised
    uniform = redrawn_null.redraw_beta(pooled, net, 0)
    normal = redrawn_null.redraw_beta(
        pooled, redrawn_null.BetaNetwork(8, inner_norm=False, init="normal"), 0
    )
    assert uniform.std(0).mean() < normal.std(0).mean() / 2
    null = redrawn_null.empirical_null(pooled, uniform, net, seed=0, draws=20)
    assert null.kind == "untrained"
    assert np.isnan(null.observed["ks"])
    text = verdicts.verdict(beta_variance.variance_split(uniform), null).text
    assert "an untrained β network would make them" in text
    with pytest.raises(UsageError, match="'uniform' or 'normal', given 'zeros'"):
        redrawn_null.redraw_beta(pooled, redrawn_null.BetaNetwork(8, init="zeros"), 0)  # type: ignore[arg-type]


def test_a_network_that_learned_nothing_is_inside_the_null() -> None:
    rng = np.random.default_rng(10)
    pooled = pooled_inputs(rng, 300, 48)
    net = network(48)
    beta = redrawn_null.redraw_beta(pooled, net, rng)
    split = beta_variance.variance_split(beta)
    assert split.within_std == pytest.approx(0.2083, abs=0.01)
    null = redrawn_null.empirical_null(pooled, beta, net, seed=0, draws=40)
    result = verdicts.verdict(split, null)
    assert result.answer == "no more"
    assert result.text.startswith("the samples' means of β vary no more than BatchNorm alone")
    again = redrawn_null.empirical_null(pooled, beta, net, seed=0, draws=40)
    np.testing.assert_array_equal(null.draws, again.draws)


def test_truly_sample_dependent_beta_is_above_the_null() -> None:
    """All channels follow one direction of the inputs: whole samples shift."""
    rng = np.random.default_rng(11)
    pooled = pooled_inputs(rng, 300, 48)
    common = (pooled @ rng.standard_normal(48))[:, None] + 0.0
    common = (common - common.mean()) / common.std()
    logits = 0.8 * common + 0.6 * rng.standard_normal((300, 48))
    logits = (logits - logits.mean(0)) / logits.std(0)
    beta = expit(logits)
    split = beta_variance.variance_split(beta)
    assert split.within_std == pytest.approx(0.2083, abs=0.01)
    result = verdicts.verdict(
        split, redrawn_null.empirical_null(pooled, beta, network(48), seed=0, draws=40)
    )
    assert result.answer == "more"
    assert result.p_value == pytest.approx(1 / 41)
    assert "means of β vary more than BatchNorm alone would make them" in result.text


def test_balanced_channels_are_below_the_null() -> None:
    rng = np.random.default_rng(12)
    pooled = pooled_inputs(rng, 300, 48)
    half = rng.standard_normal((300, 24))
    beta = expit(np.hstack([half, -half]))
    null = redrawn_null.empirical_null(pooled, beta, network(48), seed=0, draws=40)
    assert verdicts.verdict(beta_variance.variance_split(beta), null).answer == "less"


def test_constant_beta_and_missing_information() -> None:
    rng = np.random.default_rng(13)
    pooled = pooled_inputs(rng, 100, 16)
    still = redrawn_null.redraw_beta(pooled, network(16, gamma=0.0, bias=0.4), rng)
    split = beta_variance.variance_split(still)
    assert verdicts.verdict(split).answer == "constant"
    assert "hardly varies" in verdicts.verdict(split).text
    null = redrawn_null.empirical_null(
        pooled, still, network(16, gamma=0.0, bias=0.4), seed=0, draws=20
    )
    assert np.isnan(null.p_value())
    moving = beta_variance.variance_split(expit(rng.standard_normal((100, 16))))
    unknown = verdicts.verdict(moving)
    assert unknown.answer == "unknown"
    assert "without the pooled inputs" in unknown.text
    for shape, what in (((9, 1), "channel"), ((1, 9), "sample")):
        few = verdicts.verdict(beta_variance.variance_split(rng.random(shape)))
        assert few.text == f"cannot be decided from one {what}"


def test_p_values_of_networks_that_learned_nothing_are_uniform() -> None:
    rng = np.random.default_rng(16)
    found = []
    for _ in range(210):
        pooled = pooled_inputs(rng, 50, 20, rank=3)
        net = network(20, hidden=3)
        beta = redrawn_null.redraw_beta(pooled, net, rng)
        found.append(redrawn_null.empirical_null(pooled, beta, net, seed=rng, draws=20).p_value())
    ranks = np.rint(np.asarray(found) * 21).astype(int)  # 1 to 21, each as likely
    counts = np.bincount((ranks - 1) // 3, minlength=7)
    assert stats.chisquare(counts).pvalue > 0.01
    assert stats.binomtest(int((ranks <= 2).sum()), len(ranks), 2 / 21).pvalue > 0.01


def test_thinning_and_errors_of_the_empirical_null() -> None:
    rng = np.random.default_rng(15)
    pooled = pooled_inputs(rng, 400, 12)
    beta = redrawn_null.redraw_beta(pooled, network(12), rng)
    null = redrawn_null.empirical_null(pooled, beta, network(12), seed=0, draws=20, max_samples=100)
    assert null.samples == 100
    with pytest.raises(AconError, match=r"β is \(400, 12\), the pooled inputs are \(399, 12\)"):
        redrawn_null.empirical_null(pooled[1:], beta, network(12), seed=0)
    with pytest.raises(UsageError, match="at least 20 draws, given 5"):
        redrawn_null.empirical_null(pooled, beta, network(12), seed=0, draws=5)
    with pytest.raises(AconError, match=r"β has 12 channels, bn_weight has shape \(3,\)"):
        redrawn_null.empirical_null(pooled, beta, network(3), seed=0)


def test_overall_sentence() -> None:
    def made(answer: str) -> verdicts.Verdict:
        return verdicts.Verdict(answer, 0.01, "")  # type: ignore[arg-type]

    none = {f"layer{i}": made("no more") for i in range(16)}
    every = verdicts.overall(none)
    assert every.answer == "No sign of it"
    assert every.text.endswith("no more than with random weights in each of 16 layers")
    one = verdicts.overall({**none, "layer3": made("more")})
    assert one.answer == "Not clearly"
    assert "in 1 of 16 layers (layer3), but chance alone brings as many" in one.text
    many = verdicts.overall({**none, **{f"layer{i}": made("more") for i in range(7)}})
    assert many.answer == "Yes"
    assert "in 7 of 16 layers (layer0, layer1, layer2, layer3, layer4 and 2 more)" in many.text
    alone = verdicts.overall({"layer0": made("no more")})
    assert alone.text.endswith("than with random weights in the one layer tested")
    constant = verdicts.overall({"a": made("constant")})
    assert constant == ("No", "β hardly varies between samples in its one layer")
    assert verdicts.overall({"a": made("unknown")}).answer == "Unknown"
    assert verdicts.overall({}).answer == "Unknown"
    mixed = verdicts.overall({**none, "b": made("constant")}).text
    assert mixed.endswith("; in 1 more it hardly varies")
