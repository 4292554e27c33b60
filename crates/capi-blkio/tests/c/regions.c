/* Memory regions: what is taken and what is refused. */

#include "check.h"

int
main (int argc, char *argv[])
{
  struct blkio *b;
  struct blkio_mem_region r, s, t;
  char *memory, stack[64];
  uint64_t alignment;
  int fd;

  if (argc != 3)
    return 2;
  b = started (argv[1], argv[2]);
  MUST (blkio_get_uint64 (b, "mem-region-alignment", &alignment));

  SHOW (blkio_alloc_mem_region (b, &r, 0));
  SHOW (blkio_alloc_mem_region (b, &r, 1));
  SHOW (blkio_alloc_mem_region (b, &r, (size_t) -1));
  SHOW (blkio_alloc_mem_region (b, &r, 65536));
  printf ("len %zu iova %" PRIu64 " offset %" PRId64 " fd %s flags %u address %s\n", r.len, r.iova,
          r.fd_offset, r.fd >= 0 ? "yes" : "no", r.flags,
          (uintptr_t) r.addr % 4096 == 0 ? "of a page" : "odd");
  SHOW (r.fd >= 0 ? fcntl (r.fd, F_GETFD) : -1);
  SHOW (((char *) r.addr)[65535]);
  SHOW (blkio_map_mem_region (b, &r));
  SHOW (blkio_map_mem_region (b, &r));
  blkio_unmap_mem_region (b, &r);
  blkio_unmap_mem_region (b, &r);
  SHOW (blkio_map_mem_region (b, &r));
  blkio_unmap_mem_region (b, &r);
  blkio_free_mem_region (b, &r);

  fd = memfd_create ("regions", 0);
  if (fd < 0 || ftruncate (fd, 65536) < 0)
    return 1;
  memory = mmap (NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  s = (struct blkio_mem_region) { .addr = memory, .len = 65536, .fd = fd };
  if (alignment > 1) {
    t = s, t.addr = memory + 1, t.len = 4096;
    SHOW (blkio_map_mem_region (b, &t));
    t = s, t.len = 4097;
    SHOW (blkio_map_mem_region (b, &t));
  }
  SHOW (blkio_map_mem_region (b, &s));
  /* What is not the same is not the region. */
  t = s, t.len = 4096;
  blkio_unmap_mem_region (b, &t);
  SHOW (blkio_map_mem_region (b, &s));
  close (fd);
  blkio_unmap_mem_region (b, &s);
  s = (struct blkio_mem_region) { .addr = stack, .len = sizeof stack, .fd = -1 };
  SHOW (blkio_map_mem_region (b, &s));
  /* Left to the end of the instance. */
  SHOW (blkio_alloc_mem_region (b, &r, 8192));
  SHOW (blkio_map_mem_region (b, &r));
  blkio_destroy (&b);
  munmap (memory, 65536);
  return 0;
}
