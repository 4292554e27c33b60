/* What the programs share. They print what they see, and the tests compare that with what is
 * written in NAME.expected and with what another libnbd makes the same program print. */

#ifndef CHECK_H
#define CHECK_H

/* Some programs pass NULL on purpose. */
#define LIBNBD_ATTRIBUTE_NONNULL(...)

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libnbd.h>

/* Prints a call and what it returned, with the error if there is one. */
#define SHOW(call) show (#call, (long long) (call))

static inline void
show (const char *call, long long result)
{
  printf ("%s = %lld", call, result);
  if (result == -1)
    printf (" [%s; %d]", nbd_get_error (), nbd_get_errno ());
  printf ("\n");
}

/* The same for a string that the caller frees. */
#define SHOW_STRING(call) show_string (#call, (call))

static inline void
show_string (const char *call, char *text)
{
  if (text != NULL)
    printf ("%s = \"%s\"\n", call, text);
  else
    printf ("%s = NULL [%s; %d]\n", call, nbd_get_error (), nbd_get_errno ());
  free (text);
}

/* Ends the program if a call fails that must not. */
#define MUST(call) must (#call, (long long) (call))

static inline long long
must (const char *call, long long result)
{
  if (result == -1) {
    printf ("%s failed: %s; %d\n", call, nbd_get_error (), nbd_get_errno ());
    exit (EXIT_FAILURE);
  }
  return result;
}

static inline struct nbd_handle *
create (void)
{
  struct nbd_handle *h = nbd_create ();

  if (h == NULL) {
    printf ("nbd_create failed: %s\n", nbd_get_error ());
    exit (EXIT_FAILURE);
  }
  return h;
}

/* Waits until an asynchronous command has completed, and forgets it. */
static inline int
wait_for (struct nbd_handle *h, int64_t cookie)
{
  int done;

  while ((done = nbd_aio_command_completed (h, cookie)) == 0)
    MUST (nbd_poll (h, -1));
  return done;
}

#endif
