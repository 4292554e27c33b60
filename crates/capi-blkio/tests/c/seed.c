/* The program that stands in the documentation. */

#include <stdio.h>
#include <string.h>

#include <blkio.h>

static int
fail (const char *what, int error)
{
  fprintf (stderr, "%s: %s: %s\n", what, strerror (-error), blkio_get_error_msg ());
  return 1;
}

int
main (int argc, char *argv[])
{
  struct blkio_completion completion;
  struct blkio_mem_region region;
  struct blkio *b;
  struct blkioq *q;
  int ret;

  if (argc != 3)
    return 2;
  if ((ret = blkio_create (argv[1], &b)) < 0)
    return fail ("create", ret);
  if ((ret = blkio_set_str (b, "path", argv[2])) < 0)
    return fail ("set path", ret);
  if ((ret = blkio_connect (b)) < 0)
    return fail ("connect", ret);
  if ((ret = blkio_start (b)) < 0)
    return fail ("start", ret);
  /* Some drivers need the memory to be a region; it never hurts. */
  if ((ret = blkio_alloc_mem_region (b, &region, 4096)) < 0)
    return fail ("allocate", ret);
  if ((ret = blkio_map_mem_region (b, &region)) < 0)
    return fail ("map", ret);

  q = blkio_get_queue (b, 0);
  blkioq_read (q, 0, region.addr, 4096, NULL, 0);
  ret = blkioq_do_io (q, &completion, 1, 1, NULL);
  if (ret != 1)
    return fail ("do_io", ret);
  if (completion.ret != 0)
    return fail ("read", completion.ret);
  printf ("%.5s\n", (const char *) region.addr);
  blkio_destroy (&b);
  return 0;
}
