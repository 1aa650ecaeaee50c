"""Score label maps in a folder against a datalist: ``cellbundle evaluate``, for those who look among the scripts.

python scripts/evaluate_datalist.py PREDICTIONS --datalist FILE --basedir DIR [--groups FILE.csv --column modality]
"""

import sys

from cellbundle.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
