#!/bin/bash
# Run once by the database image on an empty data folder: the service account
# that the proxy uses, and an account for an application to try it with.
set -euo pipefail
mysql -u root -p"$MYSQL_ROOT_PASSWORD" << SQL
CREATE USER 'lockstep'@'%' IDENTIFIED BY '$SERVICE_PASSWORD';
GRANT ALL PRIVILEGES ON *.* TO 'lockstep'@'%' WITH GRANT OPTION;
CREATE USER 'app'@'%' IDENTIFIED BY 'app-pw';
GRANT ALL PRIVILEGES ON shop.* TO 'app'@'%';
SQL
