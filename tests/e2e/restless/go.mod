module restless

go 1.21
