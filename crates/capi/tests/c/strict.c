/* What the library refuses by itself, and what the server says when it does not. */

#include "check.h"

static char buf[1024];

static void
try (struct nbd_handle *h, const char *when)
{
  printf ("-- %s\n", when);
  printf ("mode %#x\n", nbd_get_strict_mode (h));
  SHOW (nbd_pread (h, buf, 512, 1 << 20, 0));
  SHOW (nbd_pread (h, buf, 1024, (1 << 20) - 512, 0));
  SHOW (nbd_pwrite (h, buf, 512, 0, 0) == 0);
  SHOW (nbd_pread (h, buf, 512, 0, LIBNBD_CMD_FLAG_FUA) == 0);
  SHOW (nbd_pread (h, buf, 512, 0, 0));
}

int
main (int argc, char *argv[])
{
  struct nbd_handle *h = create ();

  if (argc != 2)
    return 2;
  SHOW (nbd_set_strict_mode (h, 0x10000));
  MUST (nbd_connect_unix (h, argv[1]));
  MUST (nbd_set_strict_mode (h, LIBNBD_STRICT_MASK & 0x3f));
  try (h, "all");
  MUST (nbd_set_strict_mode (h, nbd_get_strict_mode (h) & ~LIBNBD_STRICT_BOUNDS));
  try (h, "no bounds");
  MUST (nbd_set_strict_mode (h, nbd_get_strict_mode (h) & ~LIBNBD_STRICT_COMMANDS));
  try (h, "no commands");
  MUST (nbd_set_strict_mode (h, nbd_get_strict_mode (h) & ~LIBNBD_STRICT_FLAGS));
  try (h, "no flags");
  MUST (nbd_set_strict_mode (h, nbd_get_strict_mode (h) & ~LIBNBD_STRICT_ZERO_SIZE));
  SHOW (nbd_pread (h, buf, 0, 0, 0));
  MUST (nbd_shutdown (h, 0));
  nbd_close (h);
  return 0;
}
