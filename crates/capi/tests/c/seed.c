/* The shortest useful program: connect by TCP, ask for the size, read the first sector. */

#include "check.h"

int
main (int argc, char *argv[])
{
  struct nbd_handle *nbd;
  unsigned char buf[512];
  int64_t size;
  size_t i;

  if (argc != 2)
    return 2;
  if ((nbd = nbd_create ()) == NULL ||
      nbd_connect_tcp (nbd, "localhost", argv[1]) == -1 ||
      (size = nbd_get_size (nbd)) == -1 ||
      nbd_pread (nbd, buf, sizeof buf, 0, 0) == -1) {
    fprintf (stderr, "%s\n", nbd_get_error ());
    nbd_close (nbd);
    exit (EXIT_FAILURE);
  }
  printf ("size %" PRIi64 "\n", size);
  for (i = 0; i < sizeof buf; ++i)
    printf ("%02x%s", buf[i], i % 32 == 31 ? "\n" : "");
  MUST (nbd_shutdown (nbd, 0));
  nbd_close (nbd);
  return 0;
}
