from sq_imputer.cli import main

main()
