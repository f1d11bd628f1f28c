"""The HTML of an audit's page, as a Jinja template that fills the frame of `template.BASE`."""

AUDIT_PAGE = """\
{% extends "base" %}
{% from "parts" import folded, settings_table %}
{% macro strata_table(heading, strata, form) %}
<div class="wide">
<table class="topics">
<thead><tr><th scope="col">{{ heading }}</th>
{% for name in ("Pairs", "Consistency", "Mean SD", "Mean |SD|") %}
<th scope="col" class="number">{{ name }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in strata %}
<tr><th scope="row">{{ form|format(row.low) }}
{{ "and more" if row.high > 1000 else "to " ~ form|format(row.high) }}</th>
<td class="number">{{ "{:,}".format(row.n_pairs) }}</td><td class="number">{{ "%.3f"|format(row.consistency) }}</td>
<td class="number">{{ "%+.3f"|format(row.deviation_mean) }}</td>
<td class="number">{{ "%.3f"|format(row.deviation_abs) }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
{% endmacro %}
{% block content %}
<p class="verdict">{{ verdict }}</p>
<p class="soft">{{ counts }}</p>

{% for section in sections %}
<h2>{{ section.title }}</h2>
{% if not loop.first or sections|length > 1 %}
<p>{{ section.verdict }}</p>
{% endif %}
<table class="metrics">
<thead><tr><th scope="col">Metric</th><th scope="col" class="number">Value</th></tr></thead>
<tbody>
{% for metric, cell in section.rows %}
<tr><th scope="row">{{ metric.label }}<span class="meaning">{{ metric.meaning }}
{%- if metric.direction %}; {{ metric.direction }}{% endif %}</span></th>
<td class="number">{{ cell.value }}
{%- if cell.interval %}<span class="interval">{{ cell.interval }}</span>{% endif %}</td></tr>
{% endfor %}
</tbody>
</table>
{% if section.picture %}
<figure>
<div class="wide"><img src="{{ section.picture }}" alt="Both readings of every pair, and their deviation"></div>
<figcaption>Left: the two readings of each pair against each other; a judge without bias is on the diagonal. Right: the
symmetry deviation SD = p<sub>ab</sub> + p<sub>ba</sub> − 1 of the pairs.</figcaption>
</figure>
{% endif %}
{% endfor %}
<p class="soft">In brackets: 95 % interval over pairs. Pairs are the unit of every test; a tie is a verdict for neither
slot. In other probes than the swap, read “second slot” as the side that is named above.</p>

{% if margins or lengths %}
<h2>Where the bias sits</h2>
{% endif %}
{% if margins %}
{{ strata_table("|p_sym − 0.5|", margins, "%.1f") }}
<p class="soft">Pairs near 0 are close calls, where some contradiction is to be expected; a bias at 0.4 turns clear
cases.</p>
{% endif %}
{% if lengths %}
{{ strata_table("Longer response / shorter", lengths, "%.1f") }}
{% endif %}

{% if groups %}
<h2>By group</h2>
<div class="wide">
<table class="topics">
<thead><tr><th scope="col">Group</th>
{% for name in group_heads %}
<th scope="col" class="number">{{ name }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in groups %}
<tr><th scope="row"><bdi>{{ row.name|line(80) }}</bdi></th>
{% for cell in row.cells %}
<td class="number">{{ cell.value or "–" }}
{%- if cell.interval %}<span class="interval">{{ cell.interval }}</span>{% endif %}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
<p class="soft">Each group is tested for itself: of twenty groups without bias, one is called biased by chance.</p>
{% endif %}

<h2>Pairs that flip</h2>
<p class="soft">{{ "{:,}".format(n_flips) }} pairs have another winner in the other reading
{%- if n_flips > flips|length %}; the {{ flips|length }} that deviate most are here, all are in flips.jsonl{% endif %}.
p<sub>ab</sub> and p<sub>ba</sub> are both the probability that the second slot is better.</p>
{% for flip in flips %}
<details>
<summary>{{ loop.index }}. SD {{ "%+.2f"|format(flip.deviation) }} <span class="soft">{{ flip.probe }}
<bdi>{{ flip.id|line }}</bdi></span></summary>
<p class="soft">p<sub>ab</sub> {{ "%.2f"|format(flip.p_ab) }}, p<sub>ba</sub> {{ "%.2f"|format(flip.p_ba) }}.</p>
{{ folded(flip.texts, fold) }}
</details>
{% endfor %}

{{ settings_table(settings) }}
{% endblock %}
"""
