"""The HTML of the pages, as Jinja templates. Every value is escaped; style is inline; there is no script.

`BASE` is the frame of every page (a title, the style), the others fill its block `content`, and `style` where they
need more of it. `PARTS` are macros that pages share.
"""

BASE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{ title|line }}</title>
<style>
:root { --ink: #1b1f24; --soft: #57606a; --rule: #d5dae0; --paper: #ffffff; --well: #f4f6f8;
  --good: #00664a; --bad: #a33c00 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ec; --soft: #9da7b1; --rule: #39424c; --paper: #14181d; --well: #1e242b;
    --good: #56c9a0; --bad: #f29a5e }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
main { max-width: 64rem; margin: 0 auto; padding: 1.5rem 1rem 4rem }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .75rem; overflow-wrap: anywhere }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem }
p { margin: .5rem 0; max-width: 46rem }
.verdict { font-size: 1.1rem; max-width: none; padding: .8rem 1rem; border-left: 4px solid #0072b2;
  background: var(--well) }
.soft, figcaption { color: var(--soft); font-size: .875rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: .4rem .5rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--rule) }
th { font-weight: 600 }
thead th { color: var(--soft); font-size: .875rem }
tbody th[scope="rowgroup"] { padding-top: 1.1rem; color: var(--soft); font-size: .875rem }
.metrics th[scope="row"] { width: 46% }
.number { text-align: right; white-space: nowrap }
.interval, .meaning, .change { display: block; font-size: .8rem; font-weight: 400; color: var(--soft) }
.better { color: var(--good) }
.worse { color: var(--bad) }
figure { margin: .75rem 0 }
figcaption { margin-top: .4rem }
img { display: block; width: 100%; height: auto; background: #fff; border: 1px solid var(--rule); border-radius: 4px }
details { border: 1px solid var(--rule); border-radius: 4px; margin: .5rem 0; padding: 0 .75rem }
details details { background: var(--well) }
summary { cursor: pointer; padding: .5rem 0; overflow-wrap: anywhere }
.text { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--well); padding: .5rem .75rem;
  margin: 0 0 .75rem; max-height: 30rem; overflow: auto }
.name { margin: .5rem 0 .2rem; font-size: .875rem; font-weight: 600; color: var(--soft) }
.settings td, .settings th, .topics th { overflow-wrap: anywhere }
.settings th { font-weight: 400; width: 40% }
.topics th[scope="row"] { min-width: 7rem }
@media (max-width: 34rem) {
  main { padding: 1rem .75rem 3rem }
  th, td { padding: .35rem .3rem }
  .metrics th[scope="row"] { width: auto }
  figure img { width: 44rem; max-width: none }
  .metrics .interval { font-size: .72rem }
}
{% block style %}{% endblock %}
</style>
</head>
<body>
<main>
<h1><bdi>{{ title|line }}</bdi></h1>
{% block content %}{% endblock %}
</main>
</body>
</html>
"""

PARTS = """\
{% macro folded(texts, fold) %}
{% for name, text in texts %}
{% if text|length > fold %}
<details><summary>{{ name|line(80) }} ({{ "{:,}".format(text|length) }} characters)</summary>
<div class="text" dir="auto">{{ text|block }}</div></details>
{% else %}
<p class="name">{{ name|line(80) }}</p>
<div class="text" dir="auto">{{ text|block }}</div>
{% endif %}
{% endfor %}
{% endmacro %}
{% macro examples(rows, other, fold) %}
{% for row in rows %}
<details>
<summary>{{ loop.index }}. Answer {{ "%.2f"|format(row.answer) }}, {% if row.pair.true_probability is not none -%}
truth {{ "%.2f"|format(row.pair.true_probability) }}, {% endif -%}
votes {{ "%.2f"|format(row.pair.label) }} <span class="soft"><bdi>{{ row.pair.id|line }}</bdi></span></summary>
<p class="soft">B shown second {{ "%.2f"|format(row.answer_ab) }}, B shown first {{ "%.2f"|format(row.answer_ba) }},
{{ other }} {{ "%.2f"|format(row.answer_before) }}
{%- if row.pair.n_votes is not none %}; number of votes: {{ row.pair.n_votes }}{% endif %}
{%- if row.pair.topic %}; topic <bdi>{{ row.pair.topic|line }}</bdi>{% endif %}.</p>
{{ folded(row.texts, fold) }}
</details>
{% endfor %}
{% endmacro %}
{% macro settings_table(settings) %}
{% if settings %}
<h2>Settings</h2>
<details>
<summary>What the run was told: {{ settings|length }} values</summary>
<table class="settings">
{% for name, value in settings %}
<tr><th scope="row">{{ name|line }}</th><td><bdi>{{ value|line }}</bdi></td></tr>
{% endfor %}
</table>
</details>
{% endif %}
{% endmacro %}
"""

PAGE = """\
{% extends "base" %}
{% from "parts" import examples, settings_table %}
{% block content %}
<p class="verdict">{{ verdict }}</p>
<p class="soft">{{ "{:,}".format(n_pairs) }} held-out pairs, each read in both orders. Answers are probabilities; they
are measured against the share of people's votes
{%- if has_truth %}, and against the true probability p*, which is known here{% endif %}.</p>

<h2>Before and after</h2>
<table class="metrics">
<thead><tr><th scope="col">Metric</th>
{% for name in ("Before", "After") %}
<th scope="col" class="number">{{ name }}</th>
{% endfor %}
</tr></thead>
{% for heading, rows in groups.items() %}
{% set explained = loop.first %}
<tbody>
<tr><th colspan="3" scope="rowgroup">{{ heading }}</th></tr>
{% for row in rows %}
<tr>
<th scope="row">{{ row.metric.label }}
{%- if explained %}<span class="meaning">{{ row.metric.meaning }}
{%- if row.metric.direction %}; {{ row.metric.direction }}{% endif %}</span>{% endif %}</th>
{% for cell in (row.before, row.after) %}
<td class="number">{{ cell.value or "–" }}
{%- if cell.interval %}<span class="interval">{{ cell.interval }}</span>{% endif %}
{%- if loop.last and row.change %}<span class="change {{ row.change }}">{{ row.change }}</span>{% endif %}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
{% endfor %}
</table>
<p class="soft">In brackets: 95 % interval, bootstrap over pairs. “better” and “worse” stand where the two intervals do
not overlap. SD is the symmetry deviation p<sub>ab</sub> + p<sub>ba</sub> − 1: what the response shown second
gets too much.</p>

<h2>Reliability</h2>
<figure>
<div class="wide"><img src="{{ reliability }}" alt="Reliability diagrams before and after training"></div>
<figcaption>Each dot is a bin of answers: where the judge says 0.7, how many people agreed? Calibrated answers lie on
the dashed line. The larger the dot, the more answers; bars are 95 % intervals.
{%- if has_truth %} Hollow diamonds show the mean true probability of the bin.{% endif %}
 Below: how often each answer is given.</figcaption>
</figure>

<h2>Order swap</h2>
<figure>
<div class="wide"><img src="{{ order_swap }}" alt="Answers with B shown second against B shown first"></div>
<figcaption>Each dot is a pair: the probability of response B, read with B in the second slot and in the first. A judge
that does not care for slots puts every dot on the dashed line.</figcaption>
</figure>

{% if topics %}
<h2>Calibration by topic, after training</h2>
<div class="wide">
<table class="topics">
<thead><tr><th scope="col">Topic</th>
{% for name in ("Pairs", "Answer", "Votes", "Gap", "Brier") %}
<th scope="col" class="number">{{ name }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in topics %}
<tr><th scope="row"><bdi>{{ row.topic|line(80) }}</bdi></th><td class="number">{{ "{:,}".format(row.n_pairs) }}</td>
<td class="number">{{ "%.3f"|format(row.answer) }}</td><td class="number">{{ "%.3f"|format(row.vote) }}</td>
<td class="number">{{ "%+.3f"|format(row.gap) }}</td><td class="number">{{ "%.3f"|format(row.brier) }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
<p class="soft">Both orders averaged. Answer and votes: means for the response that the judge prefers; a gap above 0
means that it is too sure. Largest gap first; with few pairs, a gap is mostly chance.</p>
{% endif %}

<h2>Worst pairs after training</h2>
<p class="soft">Where the two orders averaged are farthest from
{{ "the true probability p*" if has_truth else "the votes" }}. All numbers are Pr[B is better].
{%- if not has_truth %} With few votes a pair, many of these are the votes' surprise, not the judge's mistake.
{%- endif %}</p>
{{ examples(worst, "before training", fold) }}

{{ settings_table(settings) }}
{% endblock %}
"""
