/* NULL and other nonsense that is answered. */

#include "check.h"

int
main (int argc, char *argv[])
{
  struct blkio_completion completion;
  struct blkio *b, *nothing = NULL;
  struct blkioq *q;
  struct timespec timeout;
  int number;

  if (argc != 3)
    return 2;
  b = started (argv[1], argv[2]);
  q = blkio_get_queue (b, 0);
  blkio_destroy (NULL);
  SHOW (blkio_create (argv[1], NULL));
  SHOW (blkio_create ("\xff", &nothing));
  SHOW (blkio_set_str (b, "path", "\xff"));
  SHOW (blkio_get_int (b, "\xff", &number));
  SHOW (blkioq_do_io (q, NULL, 0, 1, NULL));
  SHOW (blkioq_do_io (q, NULL, 0, 0, NULL));
  SHOW (blkioq_do_io (q, NULL, -1, 0, NULL));
  SHOW (blkioq_do_io (q, NULL, 2, 1, NULL));
  blkioq_flush (q, NULL, 0);
  SHOW (blkioq_do_io (q, NULL, 1, 1, NULL));
  timeout = (struct timespec) { -1, 0 };
  SHOW (blkioq_do_io (q, &completion, 1, 1, &timeout));
  timeout = (struct timespec) { 0, -1 };
  SHOW (blkioq_do_io (q, &completion, 1, 1, &timeout));
  timeout = (struct timespec) { 0, 1000000000 };
  SHOW (blkioq_do_io (q, &completion, 2, 1, &timeout));
  timeout = (struct timespec) { INT64_MAX, 0 };
  SHOW (blkioq_do_io (q, &completion, 1, 1, &timeout));
  blkio_destroy (&b);
  return 0;
}
