"""report: tables only -> figures -> one page.

zoo_behaviour  answers of the zoo models -> results/<run>/tables/zoo_behaviour.csv
figures        tables                    -> results/<run>/figures/<study>/*.{svg,png}
report         tables + figures          -> results/<run>/report.html
"""
