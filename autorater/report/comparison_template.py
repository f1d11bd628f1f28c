"""The HTML of a comparison of judging methods, as a Jinja template; see `template`."""

COMPARISON = """\
{% extends "base" %}
{% from "parts" import examples %}
{% block style %}
main { max-width: 76rem }
.methods { font-size: .9rem }
.methods th[scope="row"] { font-weight: 400; min-width: 9rem }
.methods .best th[scope="row"], .methods .best td { font-weight: 700; background: var(--well) }
.methods tbody th[scope="rowgroup"] { color: var(--ink); font-size: 1rem }
.swatch { display: inline-block; width: .7rem; height: .7rem; border-radius: 50%; margin-right: .4rem }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(21rem, 100%), 1fr)); gap: .75rem }
.gallery img { width: 100%; max-width: 100% }
@media (max-width: 34rem) {
  .methods { font-size: .8rem }
  .methods th[scope="row"], .methods thead th:first-child { position: sticky; left: 0; background: var(--paper);
    min-width: 6.5rem; max-width: 8rem }
  .methods .best th[scope="row"] { background: var(--well) }
  figure .gallery img { width: 100% }
}
{% endblock %}
{% block content %}
<p class="verdict">{{ verdict }}</p>
<p class="soft">{{ summary }}. Each pair is read in both orders. Answers are probabilities; they are measured against
the share of people's votes{% if has_truth %}, and against the true probability p*, which is known here{% endif %}.</p>

<h2>Every method, with everything on top</h2>
<div class="wide">
<table class="methods">
<thead><tr><th scope="col">On top</th>
{% for label, metric in columns %}
<th scope="col" class="number">{{ label }}<span class="meaning">{{ metric.better or "" }}</span></th>
{% endfor %}
</tr></thead>
{% for method in methods %}
<tbody>
<tr><th colspan="{{ columns|length + 1 }}" scope="rowgroup">
{% if method.color %}<span class="swatch" style="background: {{ method.color }}"></span>{% endif %}
<bdi>{{ method.name|line }}</bdi><span class="meaning">{{ method.meaning }}</span></th></tr>
{% if method.reason %}
<tr><td colspan="{{ columns|length + 1 }}">not available: <bdi>{{ method.reason|line(400) }}</bdi></td></tr>
{% endif %}
{% for row in method.rows %}
<tr{% if row.best %} class="best"{% endif %}>
<th scope="row">{{ row.name }}{% if row.fitted %}<span class="meaning">{{ row.fitted }}</span>{% endif %}</th>
{% for cell in row.cells %}
<td class="number">{{ cell.value or "–" }}
{%- if cell.interval %}<span class="interval">{{ cell.interval }}</span>{% endif %}
{%- if loop.first and row.change %}<span class="change {{ row.change }}">{{ row.change }}</span>{% endif %}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
{% endfor %}
</table>
</div>
<p class="soft">Under the names of the columns: which way is better. In brackets: 95 % interval, bootstrap over groups
of pairs, with the fitted maps as given. “better” and “worse” stand where the paired difference to “{{ reference }}” is
beyond its own 95 % interval. The row in bold is the best of many, so chance flatters it a little. |SD| is how far
swapping the responses moves an answer; sharpness is the variance of the answers; readable is the probability that an
answer is one. What a perfect judge would show as ECE with so many votes stands in the ranking below.</p>

<h2>Ranking</h2>
<figure>
<div class="wide"><img src="{{ ranking }}" alt="Scores of all methods with intervals"></div>
<figcaption>Dots are estimates, lines 95 % intervals; nearer to the left edge is better. The grey tick is what a
perfect judge that gives the same answers would show: an ECE near it is nothing but chance.</figcaption>
</figure>

<h2>Reliability</h2>
<figure>
<div class="gallery">
{% for picture in reliability %}
<img src="{{ picture }}" alt="Reliability diagram">
{% endfor %}
</div>
<figcaption>Each method as it is, and the best row. Each dot is a bin of answers: where the judge says 0.7, how many
people agreed? Calibrated answers lie on the dashed line. The larger the dot, the more answers; bars and band are 95 %
intervals.
{%- if has_truth %} Hollow diamonds show the mean true probability of the bin.{% endif %}
 Below: how often each answer is given.</figcaption>
</figure>

<h2>Order swap</h2>
<figure>
<div class="gallery">
{% for picture in order_swap %}
<img src="{{ picture }}" alt="Answers with B shown second against B shown first">
{% endfor %}
</div>
<figcaption>Each dot is a pair: the probability of response B, read with B in the second slot and in the first. A judge
that does not care for slots puts every dot on the dashed line.</figcaption>
</figure>

<h2>Sharpness</h2>
<figure>
<div class="wide"><img src="{{ tradeoff }}" alt="Calibration error against sharpness"></div>
<figcaption>Each dot is a row of the table. An answer that is always the same is easily calibrated and says nothing:
good methods are low and to the right.</figcaption>
</figure>

{% if groups %}
<h2>Where the best row is least calibrated</h2>
<figure>
<div class="wide"><img src="{{ groups }}" alt="Calibration error by group of pairs"></div>
<figcaption>{{ worst_group }} Numbers of pairs in brackets; bars are ECE, lines 95 % intervals, ticks what a perfect
judge would show on so few votes. The worst come first, measured by how far they are above it.</figcaption>
</figure>
{% endif %}

{% if win_rates %}
<h2>Model against model, by the best row</h2>
<div class="wide">
<table>
<thead><tr><th scope="col">Models</th>
{% for name in ("Pairs", "Judged", "Voted", "Judged − voted") %}
<th scope="col" class="number">{{ name }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in win_rates %}
<tr><th scope="row"><bdi>{{ row.models|line(80) }}</bdi></th><td class="number">{{ "{:,}".format(row.n_pairs) }}</td>
{% for cell in row.cells %}
<td class="number">{{ cell.value }}
{%- if cell.interval %}<span class="interval">{{ cell.interval }}</span>{% endif %}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
<p class="soft">How often the first model wins, both orders averaged, a tie counting one half.</p>
{% endif %}

<h2>Worst pairs of the best row</h2>
<p class="soft">Where its two orders averaged are farthest from
{{ "the true probability p*" if has_truth else "the votes" }}. All numbers are Pr[B is better].
{%- if not has_truth %} With few votes a pair, many of these are the votes' surprise, not the judge's mistake.
{%- endif %}</p>
{{ examples(worst, reference, fold) }}
{% endblock %}
"""
