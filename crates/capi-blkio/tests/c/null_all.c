/* NULL everywhere: libblkio ends the program in most of these calls. */

#include "check.h"

int
main (int argc, char *argv[])
{
  struct blkio *b;
  char *text;
  bool boolean;

  if (argc != 3)
    return 2;
  SHOW (blkio_create (NULL, &b));
  b = started (argv[1], argv[2]);
  SHOW (blkio_connect (NULL));
  SHOW (blkio_start (NULL));
  SHOW (blkio_get_bool (NULL, "direct", &boolean));
  SHOW (blkio_get_bool (b, NULL, &boolean));
  SHOW (blkio_get_bool (b, "read-only", NULL));
  SHOW (blkio_get_int (b, "max-queues", NULL));
  SHOW (blkio_get_str (b, "driver", NULL));
  SHOW (blkio_get_str (b, NULL, &text));
  SHOW (blkio_set_str (b, "path", NULL));
  SHOW (blkio_set_str (b, NULL, "x"));
  SHOW (blkio_set_int (b, NULL, 1));
  SHOW (blkio_get_queue (NULL, 0) != NULL);
  SHOW (blkio_alloc_mem_region (NULL, NULL, 4096));
  SHOW (blkio_alloc_mem_region (b, NULL, 4096));
  SHOW (blkio_map_mem_region (b, NULL));
  blkio_unmap_mem_region (b, NULL);
  blkio_free_mem_region (b, NULL);
  SHOW (blkio_add_queue (NULL));
  blkioq_flush (NULL, NULL, 0);
  SHOW (blkioq_do_io (NULL, NULL, 0, 0, NULL));
  SHOW (blkioq_get_completion_fd (NULL));
  blkioq_set_completion_fd_enabled (NULL, true);
  blkio_destroy (&b);
  blkio_destroy (&b);
  return 0;
}
