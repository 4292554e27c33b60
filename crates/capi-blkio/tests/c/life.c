/* From created to connected to started: what is refused, and what is said then. */

#include "check.h"

static struct blkio *
created (const char *driver)
{
  struct blkio *b;

  MUST (blkio_create (driver, &b));
  return b;
}

static void
out_of_order (const char *driver, const char *path)
{
  struct blkio_mem_region region = { 0 };
  struct blkio *b = created (driver);

  SHOW (blkio_start (b));
  SHOW (blkio_alloc_mem_region (b, &region, 4096));
  SHOW (blkio_map_mem_region (b, &region));
  blkio_unmap_mem_region (b, &region);
  SHOW (blkio_get_queue (b, 0) != NULL);
  SHOW (blkio_get_poll_queue (b, 0) != NULL);
  SHOW (blkio_add_queue (b));
  SHOW (blkio_add_poll_queue (b));
  SHOW (blkio_remove_queue (b, 0));
  SHOW (blkio_remove_poll_queue (b, 0));
  SHOW (blkio_connect (b));
  SHOW (blkio_set_str (b, "path", "/nonexistent/file"));
  SHOW (blkio_connect (b));
  /* A failed attempt can be made good. */
  SHOW (blkio_set_str (b, "path", path));
  SHOW (blkio_connect (b));
  SHOW (blkio_connect (b));
  SHOW (blkio_alloc_mem_region (b, &region, 4096));
  SHOW (blkio_map_mem_region (b, &region));
  SHOW (blkio_get_queue (b, 0) != NULL);
  SHOW (blkio_add_queue (b));
  SHOW (blkio_remove_queue (b, 0));
  SHOW (blkio_start (b));
  SHOW (blkio_start (b));
  SHOW (blkio_connect (b));
  blkio_destroy (&b);
  SHOW (b == NULL);
}

int
main (int argc, char *argv[])
{
  struct blkio *b = (void *) 1;
  int fd;

  if (argc != 3)
    return 2;
  setvbuf (stdout, NULL, _IOLBF, 0);
  printf ("no error yet: '%s'\n", blkio_get_error_msg ());
  SHOW (blkio_create ("nonsense", &b));
  SHOW (b == (void *) 1 ? 1 : b == NULL ? 0 : 2);
  SHOW (blkio_create ("", &b));
  out_of_order (argv[1], argv[2]);

  b = created (argv[1]);
  if (blkio_set_int (b, "fd", 0) == 0) {
    SHOW (blkio_set_str (b, "path", argv[2]));
    SHOW (blkio_connect (b));
    SHOW (blkio_set_str (b, "path", ""));
    SHOW (blkio_set_int (b, "fd", 12345));
    SHOW (blkio_connect (b));
    SHOW (blkio_set_int (b, "fd", -5));
    fd = open ("/dev/null", O_RDWR);
    MUST (blkio_set_int (b, "fd", fd));
    SHOW (blkio_connect (b));
    close (fd);
  } else
    printf ("fd: %s\n", blkio_get_error_msg ());
  blkio_destroy (&b);

  b = created (argv[1]);
  MUST (blkio_set_str (b, "path", "/"));
  SHOW (blkio_connect (b));
  blkio_destroy (&b);
  b = created (argv[1]);
  MUST (blkio_set_bool (b, "read-only", true));
  MUST (blkio_set_str (b, "path", argv[2]));
  SHOW (blkio_connect (b));
  SHOW (blkio_start (b));
  blkio_destroy (&b);

  /* The message stays until the next failure. */
  printf ("the last error: '%s'\n", blkio_get_error_msg ());
  return 0;
}
