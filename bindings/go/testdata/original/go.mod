module example.com/original

go 1.19

require libguestfs.org/libnbd v1.20.0

replace libguestfs.org/libnbd => ../..
