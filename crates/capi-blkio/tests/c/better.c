/* What libblkio 1.5 does not survive: requests that it never completes, and memory that costs the
 * connection. Here each is answered, and the queue goes on. */

#include "check.h"

static struct blkioq *q;

static void
goes_on (struct blkio_mem_region *region)
{
  blkioq_read (q, 0, region->addr, 4096, NULL, 0);
  complete (q, "  and a read");
}

int
main (int argc, char *argv[])
{
  struct blkio_mem_region region, odd;
  struct iovec iovec[1100];
  sigset_t none;
  struct blkio_completion completion;
  struct blkio *b, *nothing = NULL;
  char *stray;
  bool needed;
  int i;

  if (argc != 3)
    return 2;
  setvbuf (stdout, NULL, _IOLBF, 0);
  blkio_destroy (&nothing);
  b = started (argv[1], argv[2]);
  q = blkio_get_queue (b, 0);
  region = region_of (b, 65536);
  MUST (blkio_get_bool (b, "flush-needed", &needed));
  printf ("flush needed: %d\n", needed);

  for (i = 0; i < 1100; ++i)
    iovec[i] = (struct iovec) { (char *) region.addr + i % 16 * 512, 512 };
  blkioq_readv (q, 0, iovec, 300, NULL, 0);
  complete (q, "300 pieces");
  goes_on (&region);
  blkioq_readv (q, 0, iovec, 1100, NULL, 0);
  complete (q, "1100 pieces");
  goes_on (&region);
  blkioq_discard (q, 0, UINT64_C (1) << 42, NULL, 0);
  printf ("4 TiB of discard end: %d\n", blkioq_do_io (q, &completion, 1, 1, NULL));
  goes_on (&region);
  blkioq_discard (q, 0, 65536, NULL, 0);
  complete (q, "discard");
  goes_on (&region);
  blkioq_read (q, 0, region.addr, 0, NULL, 0);
  complete (q, "nothing to read");
  goes_on (&region);

  stray = malloc (4096);
  blkioq_read (q, 0, stray, 4096, NULL, 0);
  complete (q, "memory that is in no region");
  goes_on (&region);
  free (stray);
  MUST (blkio_get_bool (b, "needs-mem-regions", &needed));
  if (needed) {
    odd = region, odd.len = 0;
    SHOW (blkio_map_mem_region (b, &odd) < 0);
    odd = region, odd.addr = NULL;
    SHOW (blkio_map_mem_region (b, &odd) < 0);
    odd = region, odd.len = 4096;
    SHOW (blkio_map_mem_region (b, &odd) < 0);
    goes_on (&region);
  }

  sigemptyset (&none);
  for (i = 0; i < 100; ++i) {
    blkioq_flush (q, NULL, 0);
    if (blkioq_do_io_interruptible (q, &completion, 1, 1, NULL, &none) != 1)
      printf ("not flushed: %s\n", blkio_get_error_msg ());
  }
  blkio_destroy (&b);
  return 0;
}
