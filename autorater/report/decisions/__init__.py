"""From judgments to decisions: the commands `autorater winrate`, `defer` and `gate`.

arguments  options that several commands share
winrate    which system is better, and how sure are we
defer      which judgments may stand, and which pairs go to people
gate       is the judge worse than a recorded baseline
page       pictures and the HTML page of an answer
"""
