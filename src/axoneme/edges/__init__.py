"""Who talks to whom, as it was recorded: judged by policies that are only proposed, and made policies of.

flows -> `recorded` -> edges -+-> `judge`, under policies of today and of tomorrow -> `preview`
                              +-> `suggest`: policies that let these pass and nothing else
"""
