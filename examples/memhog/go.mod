module example.org/memhog

go 1.21
