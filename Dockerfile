# Built by `make image`, which puts together what is copied here: .ci/image.sh. Nothing is pulled.

# minimal: the program, the certificates of public registries, and the list of what is in it. The last stage is the default.
FROM scratch AS minimal
COPY minimal/ /
ENV PATH=/usr/local/bin:/usr/bin:/bin
ENTRYPOINT ["/usr/local/bin/backstep"]

# shell: the same, with a shell for the jobs of GitLab and Jenkins, and git for semver-tag.
FROM scratch AS shell
COPY minimal/ /
COPY shell/ /
ENV PATH=/usr/local/bin:/usr/bin:/bin
ENTRYPOINT ["/usr/local/bin/backstep"]
