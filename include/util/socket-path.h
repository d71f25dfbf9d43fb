// SPDX-License-Identifier: BSD-2-Clause
// The paths of unix sockets.
#pragma once

#include <sys/stat.h>

namespace ferry::util {

// Whether what has a path may be removed for a socket that is to listen there: a socket, which an
// earlier process left behind unless somebody listens on it, or an empty file, which is how mktemp
// reserves a name. All else is somebody's: links, devices and files with content are kept, although
// QEMU removes them, too.
inline bool gives_way_to_socket(const struct stat& info) {
    return S_ISSOCK(info.st_mode) || (S_ISREG(info.st_mode) && info.st_size == 0);
}

}  // namespace ferry::util
