module silent

go 1.21
