module keeper

go 1.21
